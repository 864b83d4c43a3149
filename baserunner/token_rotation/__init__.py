"""Another node token, when Cloudly asks for one."""
