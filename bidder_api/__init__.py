"""What brands and retailer staff call and see; also settings, composition and the `endcap` command."""
