"""The demo shop: a grocer's pages whose shelves the auction fills. Mounted by `endcap demo` alone."""
