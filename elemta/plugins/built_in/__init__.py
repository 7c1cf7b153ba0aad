"""The plugins that ship with Elemta, each in a file of its own."""
