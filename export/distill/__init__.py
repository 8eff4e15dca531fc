"""How the built-in ``tiny`` models are trained: small students of TAESD and LPIPS-squeeze.

Run as ``python -m export.distill encoder|decoder|perceptual``; see ``__main__`` for the options. The package
reads the teachers' weight files and a folder of pictures, and writes ``tiny_NAME.onnx`` with its manifest
``tiny_NAME.json``. It is never imported at run time.
"""
