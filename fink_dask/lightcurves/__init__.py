"""Light curves of objects, with all that their alerts tell of earlier times."""
