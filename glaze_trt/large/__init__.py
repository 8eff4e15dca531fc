"""Pictures that one graph cannot take: reductions, tiles, and what an extractor of one fixed size looks at.

What happens to each reduction and each tile is in `loop`.
"""
