"""Figures: of predictions, of models, of engines."""
