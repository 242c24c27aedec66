"""The world itself: its captions, its drawings, and the checker that says whether a picture shows a caption."""
