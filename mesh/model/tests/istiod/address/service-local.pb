D
localshoplocal.shop.svc.cluster.local"
`*PPB
HX