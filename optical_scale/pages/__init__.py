"""Self-contained HTML pages: the frame with its style, sortable tables, and charts as SVG text."""
