"""Mutation tests of the rules: each condition changed by itself; who notices?"""
