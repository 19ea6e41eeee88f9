R
	same-nodenear same-node.near.svc.cluster.local"
`*PPB
HX