"""What boto3 signs with where nobody looks at it."""

from __future__ import annotations

NOBODY = {"region_name": "us-east-1", "aws_access_key_id": "nobody", "aws_secret_access_key": "nothing"}
