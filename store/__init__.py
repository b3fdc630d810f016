"""The activation store on disk: schema, writer, reader, shuffled loader, statistics, verify.

A store is a zarr v3 group that any zarr client can read; what makes it fast is that an
uncompressed chunk *is* a memory-mappable file. DESIGN: chunk files are written beside their place,
fsynced and renamed, then the part's attributes are replaced: that replacement is the commit.
"""
