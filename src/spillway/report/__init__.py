"""HTML reports that stand alone: one skeleton, plots as inline SVG, tables. Floor 1."""
