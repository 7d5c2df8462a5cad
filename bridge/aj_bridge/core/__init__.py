"""Pure decisions: what to do with a delivery, what to do with an outcome. Values in, values out."""
