//! Tunnels through HTTP/2 CONNECT over mutual TLS.
