"""What a file says of itself: EXIF, XMP, IPTC and text blocks, records of clips, what follows the picture."""
