"""Does the broker work as a whole, among its real peers?"""
