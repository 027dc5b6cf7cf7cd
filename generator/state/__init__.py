"""What evpn-host itself keeps on disk: the record, earlier generations, and safe writing."""
