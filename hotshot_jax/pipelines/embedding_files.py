"""The former place of `conditioning.text.embedding_files`, by which scripts know it."""

from hotshot_jax.conditioning.text.embedding_files import open_embeddings as open_embeddings
