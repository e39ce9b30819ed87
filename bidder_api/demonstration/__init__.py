"""What `endcap demo` is made of: the data's way in, an invented market, simulated shoppers, a host who shows around."""
