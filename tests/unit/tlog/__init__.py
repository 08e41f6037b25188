"""Are the transparency log's formats and verifiers right, byte for byte?"""
