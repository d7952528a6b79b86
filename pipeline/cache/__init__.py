"""Pixel cache: images after the leading deterministic transforms, stored on disk and memory-mapped.

    recipe        how cached pixels are produced     key           keys of index rows
    shard         one Arrow IPC file of images       codec         raw pixels or JPEG
    lookup        keys of all shards                 writer        new shards, written atomically
    store         the cache used by an engine        maintenance   list, verify, prune
    permissions   private or shared folders, names of files

    DIR/<recipe>/recipe.json       how the pixels were produced, for people
    DIR/<recipe>/<name>.arrow      a finished shard, immutable
    DIR/<recipe>/.<name>.part      a shard being written, or left by a process that died

Processes never wait for each other. Each writes its own shards and reads those of others at the start of an epoch and,
while images are missing, every few seconds. Two processes that fill the cache at once may both store an image.
"""
