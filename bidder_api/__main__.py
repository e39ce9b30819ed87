"""`python -m bidder_api` is the `endcap` command."""

from bidder_api.cli import main

if __name__ == "__main__":
    main()
