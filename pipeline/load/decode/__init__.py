"""Decoding to RGB pixels with DALI, OpenCV and Pillow.

A file's properties are determined once, before decoding: format, size, mode and orientation come from the index, and
``integrity`` checks the bytes against them. So every decoder yields the same pixels or the same error, which
``tests/pipeline/load/decode/test_contract.py`` verifies with a thousand generated files:

* full images, by OpenCV, Pillow, a DALI graph or from the cache: bit-identical
* a region: bit-identical to the same region of the full image; within one level of 255 if a DALI graph resizes it
* a reduced JPEG: different pixels, as it averages where ``cv2.INTER_LINEAR`` skips; the geometry is the same

Where properties are determined:

* orientation: EXIF of JPEG, PNG and WebP, the boxes of AVIF, the tag of TIFF; the first of two blocks. XMP, EXIF in a text
  chunk of a PNG, and values outside 1..8 are ignored.
* usability: unsupported formats, invalid headers, and modes without a conversion to RGB get a status in the index
* completeness: a missing end or a wrong checksum is detected after reading, before decoding
* other damage is detected by decoding or not at all. Decoders are tried in a fixed order and report the reason; DALI,
  which fails for a whole batch, reports none
"""
