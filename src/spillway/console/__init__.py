"""Web pages for operators: plain files, no build step. Floor 6."""
