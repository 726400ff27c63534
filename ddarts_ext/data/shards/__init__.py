"""Images in .tar shards, in the manner of WebDataset; read by place, so that they are one more kind of folder."""
