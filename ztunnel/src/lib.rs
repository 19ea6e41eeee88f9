//! The node's L4 proxy: captures pod traffic and carries it over HBONE.
