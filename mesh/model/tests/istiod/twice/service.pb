C
dnsshopdns.shop.svc.cluster.local"
`*5é)*5ê)HX