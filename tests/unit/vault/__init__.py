"""Is what vault decides right, for any population, value and permit?"""
