//! The users' command: runs any program of the mesh, or the whole mesh on this machine.
