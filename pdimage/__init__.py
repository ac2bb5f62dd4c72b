"""The build side: describes, builds and serves the images that fussy carries to routers."""
