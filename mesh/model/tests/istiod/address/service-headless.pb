=
headlessshopheadless.shop.svc.cluster.local*ê?ê?HX