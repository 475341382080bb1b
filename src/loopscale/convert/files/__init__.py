"""Files of a checkpoint as people have them: its folder, weights, the names in them, its tokenizer."""
