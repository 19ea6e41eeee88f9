d
webshopweb.shop.svc.cluster.local"
`*P*Q‘?*RR*SS*TT*UU*VHX