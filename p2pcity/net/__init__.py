"""Everything libp2p: host, guard, gate, hello, peers, discovery, gossip and streams."""
