"""The demo's data: files, and the script that makes them. README.md says where they come from."""
