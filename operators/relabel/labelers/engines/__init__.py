"""Engines: language and vision-language models behind one protocol, wherever they run."""
