"""What an application imports: handlers and producers of durable tasks on NATS JetStream."""
