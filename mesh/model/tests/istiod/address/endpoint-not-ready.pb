
œ
given-1shop
ôbˆ’
Kubernetes¢BKubernetes/discovery.k8s.io/EndpointSlice/shop/given-1/10.244.2.98²,
!shop/given.shop.svc.cluster.local
Pš?È