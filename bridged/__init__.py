"""The data plane: carries LLM traffic under credentials that credentiald chose."""
