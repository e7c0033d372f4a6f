"""A real wire to measure on: links of a stated rate, proxies that count bytes, the times of Flower's messages."""
