"""Limits: what one shard may ask of a reader's memory, whatever its headers announce; beyond, it is a dead letter."""

MAX_MEMBER_BYTES = 1 << 30
"""Of one tar member or one file of a folder."""
MAX_SAMPLE_BYTES = 1 << 30
"""Of all members of one sample, names included."""
MAX_EXTENSION_BYTES = 1 << 20
"""Of one pax header or GNU long name."""
MAX_NAME_BYTES = 4096
"""Of one member's name or one row's key; as many as Linux allows a path."""
MAX_KEYS_BYTES = 1 << 28
"""Of all keys of one shard, which are remembered to find repeated ones: about 2 million samples."""
KEY_OVERHEAD_BYTES = 100
"""What remembering a key costs beside its characters; what a member costs beside its payload."""

MAX_DECOMPRESSED_BYTES = 1 << 38
"""256 GiB: what one shard may decompress to, in passing."""
FREE_DECOMPRESSED_BYTES = 4 << 30
"""What any shard may decompress to, however small it is."""
MAX_EXPANSION = 1100
"""Beyond that, bytes out per byte in; gzip cannot exceed 1032, a zstd bomb reaches 30,000."""

MAX_FOOTER_BYTES = 16 << 20
"""Of a Parquet file's footer."""
MAX_PAGE_BYTES = 1 << 29
"""Of one Parquet page once decompressed; two of them and a dictionary are held at a time."""
MAX_BATCH_BYTES = 1 << 26
"""Of the Parquet rows that are held at a time, where they are more than one."""
MAX_LINE_BYTES = 16 << 20
"""Of a line of JSON; Python objects take up to twenty times as much."""
MAX_BLANK_LINES = 100_000
"""Of one shard of JSON lines: looking at each takes time."""
MAX_LISTING_BYTES = 256 << 20
"""Of a listing file."""
MAX_LISTED_FILES = 1_000_000
"""Of the names that the braces of a recipe spell out."""
MAX_METADATA_BYTES = 16 << 20
"""Of a JSON member that `where` parses; Python objects take up to twenty times as much."""
