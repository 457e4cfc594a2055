"""What a scoring job reads: from the names that a user gives to items, bytes or pixels, wherever and however they lie.

``plan`` makes work units of folders, globs, lists and containers (which files are meant: ``listing``, ``walking``,
``kinds``); ``readers`` turns a unit into its items (``array_files``, ``parquet_files``, ``tar_shards``). Below both is
where bytes come from (``sources``, ``buckets``) and what may go wrong there (``faults``). Nothing is decoded here.
"""
