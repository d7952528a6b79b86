"""From bytes to RGB pixels: DALI first, then OpenCV, then Pillow.

What a file is gets decided once and before it is decoded. The index says its format, size, kind of pixels and orientation;
``integrity`` compares the bytes with that and decides whether they are whole; decoders are told. So every way gives the
same pixels or the same refusal, held by ``tests/pipeline/load/decode/test_contract.py`` over a thousand made files:

* whole, by OpenCV, Pillow or a DALI graph, and out of the cache: equal to the last bit
* a region: equal to the last bit to the same part of the whole picture; where a DALI graph resizes it, one level of 255
* a reduced JPEG: not the same pixels, since it averages what ``cv2.INTER_LINEAR`` skips; it shows the same place

What is decided where:

* orientation: the EXIF of JPEG, PNG and WebP, of AVIF what its boxes say, the tag of TIFF; of two blocks the first. XMP,
  and EXIF in a text of a PNG, do not count, nor does a value outside 1..8.
* usable: formats outside the list, impossible headers, and pixels without a rule to RGB get a status in the index
* whole: what the header does not tell is found once the file is read, before decoding: a missing end, a checksum
* damage that has no checksum is found by decoding or not at all. The decoders are tried in one order and the reason is
  theirs; DALI, which fails for a whole batch, gives none
"""
