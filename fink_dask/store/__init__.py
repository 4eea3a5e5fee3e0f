"""Where bytes are kept: the few operations of a file system, or of an object store, that the guarantee stands on."""
