"""What tests stand on: a real Apache Kafka of their own, and a producer that knows what it was acknowledged."""
