F
closenearclose.near.svc.cluster.local"
`*PPB
HX