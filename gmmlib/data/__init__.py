"""Images: public data sets, photographs of one's own, patches."""
