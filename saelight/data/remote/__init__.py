"""Files at URLs: ranges of bytes, read ahead, through lost connections."""
