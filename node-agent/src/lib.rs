//! Enrols pods: programs redirection in their namespaces and hands them to ztunnel.
