"""The cache: pixels behind the last deterministic step, kept on disk and mapped into memory.

    options    what a plan says of it              recipe     how cached pixels are made: what plans share
    identity   which version of which file         shard      one Arrow IPC file of pictures, and its checksums
    packing    raw pixels, or JPEG                  table      where each picture lies, over all shards
    writing    new shards, aside, then renamed      store      find, keep, publish: what an engine uses
    upkeep     list, verify, prune                 trust      who may write, which files are the cache's own

    DIR/<recipe>/recipe.json       what the pixels were made by, for people
    DIR/<recipe>/<name>.arrow      a shard: never changed once it has this name
    DIR/<recipe>/.<name>.part      a shard that a process is writing; left behind only by a dead one

No process waits for another. Each writes shards of its own and sees those of others at the start of an epoch and,
while pictures are missing, every few seconds. Two that fill at once may both keep a picture; either is right.
"""
