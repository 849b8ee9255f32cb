"""Make features from columns, with a recipe."""
